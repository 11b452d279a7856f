# Machines that exist already: nothing is made here, so `destroy` leaves them alone.
# The variables which are not used are declared so that what deployer writes for every provider raises no warning.

terraform {
  required_version = ">= 1.6.0"
}

variable "environment" {
  description = "The environment's name; not used."
  type        = string
}

variable "hosts" {
  description = "The machines by name: where each answers SSH, and as whom to log in."
  type = map(object({
    address = string
    port    = optional(number, 22)
    user    = optional(string)
    ports   = optional(list(object({ host = number, machine = number })), [])
  }))
}

variable "user_data" {
  description = "Not used: cloud-init has done its work on these machines, or was never there."
  type        = map(string)
  default     = {}
  sensitive   = true
}

variable "ssh_public_key" {
  description = "Not used: these machines know already who may log in."
  type        = string
  default     = ""
}

output "hosts" {
  description = "The machines as they were given."
  value = {
    for name, host in var.hosts : name => {
      address = host.address
      port    = host.port
      user    = host.user
      # Nothing is forwarded: a port of the machine is reached at its own number.
      ports = [for port in host.ports : { host = port.machine, machine = port.machine }]
    }
  }
}
