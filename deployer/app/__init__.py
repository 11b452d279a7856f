"""The library: `Deployer` composes everything below it. Refuses to know the command line."""
