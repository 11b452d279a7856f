"""What a wrong configuration file is told: file, line, field, reason, suggestion. And what a right one becomes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deployer.bundled import Kind
from deployer.config.loading import load_spec, spec_changes
from deployer.config.model import LoadedSpec, Spec
from deployer.environment import FinishedStep, create
from deployer.errors import InvalidSpec
from deployer.events import utc_now
from deployer.process import Interrupts
from deployer.storage.repository import FileRepository
from deployer.workflows.hosts import read_hosts

MINIMAL = "name: demo\nhosts: {web: {}}\n"


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for playbook in ("base", "web"):
        file = tmp_path / "bundled" / "playbooks" / f"{playbook}.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for provider in ("local", "existing"):
        file = tmp_path / "bundled" / "tofu" / provider / "main.tf"
        file.parent.mkdir(parents=True)
        file.touch()
    return tmp_path / "bundled"


def load(bundled: Path, content: str | bytes) -> LoadedSpec:
    file = bundled.parent / "demo.yml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)

    def root(kind: Kind) -> Path:
        return bundled / kind

    return load_spec(file, root=root)


def complaints(bundled: Path, content: str | bytes) -> list[str]:
    with pytest.raises(InvalidSpec) as caught:
        load(bundled, content)
    assert caught.value.exit_code == 2
    return [line.replace(f"{bundled.parent}{os.sep}", "") for line in caught.value.complaints]


def test_defaults_are_filled_in_and_the_data_is_json(bundled: Path) -> None:
    loaded = load(bundled, MINIMAL + "configure: {playbooks: [base]}\n")
    assert loaded.spec.hosts["web"].memory == 1024
    assert loaded.spec.provider.name == "local"
    assert loaded.file.parent == bundled.parent
    assert Spec.model_validate_json(json.dumps(loaded.data)) == loaded.spec


def test_port_keys_become_texts_in_json(bundled: Path) -> None:
    loaded = load(bundled, "name: demo\nhosts: {web: {ports: {8080: 80, 0: [443, 22]}}}\n")
    assert loaded.data["hosts"]["web"]["ports"] == {"8080": [80], "0": [443, 22]}  # type: ignore[index,call-overload]
    assert loaded.spec.hosts["web"].forwards == ((8080, 80), (0, 443), (0, 22))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "name: demo\nhosts:\n  web:\n    memroy: 1\n",
            (
                "demo.yml:4: hosts.web.memroy: unknown field; did you mean memory? "
                "known: cpus, memory, disk, ports, groups, address, port, user, options"
            ),
        ),
        (
            MINIMAL + "timeout: {}\n",
            (
                "demo.yml:3: timeout: unknown field; did you mean timeouts? "
                "known: name, provider, hosts, ssh, cloud_init, cloud_init_strict, configure, timeouts"
            ),
        ),
        (
            "hosts: {web: {}}\n",
            ("demo.yml:1: name: is missing (The environment's name: a-z, 0-9 and hyphens, at most 40 characters)"),
        ),
        (
            "name: ../x\nhosts: {web: {}}\n",
            (
                "demo.yml:1: name: cannot be used as it is "
                "(The environment's name: a-z, 0-9 and hyphens, at most 40 characters)"
            ),
        ),
        (
            f"name: {'x' * 300}\nhosts: {{web: {{}}}}\n",
            (
                "demo.yml:1: name: cannot be used as it is "
                "(The environment's name: a-z, 0-9 and hyphens, at most 40 characters)"
            ),
        ),
        (
            "name: demo\nhosts: {}\n",
            ("demo.yml:2: hosts: must not be empty (Machines by name (a-z, 0-9, -); `{}`: all defaults)"),
        ),
        (
            "name: demo\nhosts:\n  web:\n",
            ("demo.yml:3: hosts.web: must be a mapping (Machines by name (a-z, 0-9, -); `{}`: all defaults)"),
        ),
        (
            "name: demo\nhosts: {web: {memory: lots}}\n",
            "demo.yml:2: hosts.web.memory: must be a whole number, without quotes or a unit (Memory in MiB)",
        ),
        (
            "name: demo\nhosts: {web: {cpus: 0}}\n",
            "demo.yml:2: hosts.web.cpus: must be greater than or equal to 1 (Processors)",
        ),
        (
            "name: demo\nhosts: {web: {}, cpus: 2}\n",
            "demo.yml:2: hosts.cpus: must be a mapping (Machines by name (a-z, 0-9, -); `{}`: all defaults)",
        ),
        (
            "name: demo\nhosts: {web: {ports: {8080: x}}}\n",
            (
                "demo.yml:2: hosts.web.ports.8080: must be a whole number, without quotes or a unit "
                "(`8080: 80`: this computer's port and the machine's. `0` takes any, also for a list)"
            ),
        ),
        (
            "name: demo\nhosts:\n  web:\n    ports:\n      0:\n        - 80\n        - 99999\n",
            (
                "demo.yml:7: hosts.web.ports.0[1]: must be less than or equal to 65535 "
                "(`8080: 80`: this computer's port and the machine's. `0` takes any, also for a list)"
            ),
        ),
        (
            "name: demo\nhosts: {web: {ports: {99999: 80}}}\n",
            (
                "demo.yml:2: hosts.web.ports.99999: must be less than or equal to 65535 "
                "(`8080: 80`: this computer's port and the machine's. `0` takes any, also for a list)"
            ),
        ),
        (
            "name: demo\nhosts: {web: {ports: {8080: [80, 81]}}}\n",
            "demo.yml:2: hosts.web.ports.8080: port 8080 of this computer leads to web already; 0 takes any free port",
        ),
        (
            "name: demo\nhosts:\n  a: {ports: {8080: 80}}\n  b: {ports: {8080: 80}}\n",
            "demo.yml:4: hosts.b.ports.8080: port 8080 of this computer leads to a already; 0 takes any free port",
        ),
        (
            MINIMAL + "provider: 5\n",
            "demo.yml:3: provider: must be a mapping (Where the machines come from: a name, or a mapping)",
        ),
        (
            MINIMAL + "provider: locl\n",
            (
                "demo.yml:3: provider: no bundled provider locl; did you mean local? known: existing, local; "
                "or give the path of a module"
            ),
        ),
        (
            MINIMAL + "provider: {}\n",
            (
                "demo.yml:3: provider: give either a name (local, existing) or a path "
                "(Where the machines come from: a name, or a mapping)"
            ),
        ),
        (
            MINIMAL + "provider: {path: infra}\n",
            "demo.yml:3: provider.path: no folder with *.tf or *.tofu files: infra",
        ),
        (
            MINIMAL + "provider: {path: bundled}\n",
            "demo.yml:3: provider.path: no folder with *.tf or *.tofu files: bundled",
        ),
        *(
            (
                f"name: demo\nhosts:\n  web: {{}}\n  {name}: {{}}\n",
                f"demo.yml:4: hosts.{name}: Ansible has a meaning of its own for this name; give the host another",
            )
            for name in ("all", "ungrouped", "localhost")
        ),
        *(
            (
                f"name: demo\nhosts:\n  web:\n    groups: [shop, {name}]\n",
                "demo.yml:4: hosts.web.groups[1]: no name for a group: a host's, Ansible's own, or env_...",
            )
            for name in ("all", "ungrouped", "_meta", "web", "env_shop")
        ),
        *(
            (
                f"{MINIMAL}provider:\n  name: local\n  options:\n    image: x\n    {variable}: x\n",
                f"demo.yml:7: provider.options.{variable}: deployer gives the module this variable itself",
            )
            for variable in ("environment", "hosts", "user_data", "ssh_public_key")
        ),
        *(
            (
                f"name: demo\nhosts:\n  web:\n    options:\n      rack: 1\n      {field}: 1\n",
                f"demo.yml:6: hosts.web.options.{field}: this is a field of its own: hosts.web.{field}",
            )
            for field in ("cpus", "memory", "disk", "ports", "groups", "address", "port", "user")
        ),
        (MINIMAL + "provider: existing\n", "demo.yml:2: hosts.web: the provider existing needs this host's address"),
        (
            "name: demo\nhosts: {web: {address: 10.0.0.1}}\n",
            "demo.yml:2: hosts.web.address: only for machines that exist (provider: existing)",
        ),
        (
            MINIMAL + "configure: {playbooks: base}\n",
            ("demo.yml:3: configure.playbooks: must be a list (A list: bundled ones by name, yours by path)"),
        ),
        (
            MINIMAL + "configure:\n  playbooks:\n    - base\n    - bsae\n",
            (
                "demo.yml:6: configure.playbooks[1]: no bundled playbook bsae; did you mean base? known: base, web; "
                "or give a path, as ./bsae.yml"
            ),
        ),
        (
            MINIMAL + "configure: {playbooks: [./site.yml]}\n",
            "demo.yml:3: configure.playbooks[0]: no such file: site.yml",
        ),
        (
            MINIMAL + "configure: {vault_password_file: bundled}\n",
            "demo.yml:3: configure.vault_password_file: not a file: bundled",
        ),
        (MINIMAL + "ssh: {private_key: id}\n", "demo.yml:3: ssh.private_key: no such file: id"),
        (
            MINIMAL + "configure: {variables: {a-b: 1}}\n",
            (
                "demo.yml:3: configure.variables.a-b: cannot be used as it is "
                "(For all playbooks. Names: letters, digits, _. See Secrets)"
            ),
        ),
        (
            MINIMAL + "timeouts: {ssh: 1.5}\n",
            (
                "demo.yml:3: timeouts.ssh: must be a whole number, without quotes or a unit "
                "(A machine answers and lets us in; at most 60 where OpenTofu has nothing to do)"
            ),
        ),
        ("- a\n", "demo.yml:1: must be a mapping (of `name`, `hosts` and so on; see deployer init)"),
        (
            "name: demo\nhosts:\n\tweb: {}\n",
            (
                "demo.yml:3: not valid YAML, column 1: while scanning for the next token, "
                "found character '\\t' that cannot start any token; indent with spaces, not with tabs"
            ),
        ),
        (MINIMAL + 'ssh: "\\ud800"\n', "demo.yml:3: a \\u escape that is no character, but half of one"),
        (
            f"name: demo\nhosts: {{{','.join(f'h{number}: {{}}' for number in range(8000))}}}\n",
            "demo.yml: more than 1 MiB, with aliases expanded and defaults filled in",
        ),
        (
            "a: [1\n",
            (
                "demo.yml:2: not valid YAML, column 1: while parsing a flow sequence, "
                "expected ',' or ']', but got '<stream end>'"
            ),
        ),
        (
            b"name: \xff\n",
            "demo.yml:1: byte 0xff is not allowed; YAML is UTF-8 without control characters",
        ),
        ("# " + "x" * 1024 * 1024, "demo.yml:1: the file is larger than 1 MiB"),
    ],
)
def test_one_complaint(bundled: Path, content: str | bytes, expected: str) -> None:
    assert complaints(bundled, content) == [expected]


def test_what_is_accepted_can_be_saved_and_read_with_all_its_steps(bundled: Path) -> None:
    """An environment that could be made, and then not be read any more, could not be destroyed either."""
    many = 60_000  # nothing else grows as much: a word in the file, a line in the specification, five in the state
    loaded = load(bundled, MINIMAL + f"configure: {{playbooks: [{','.join(['base'] * many)}]}}\n")
    with FileRepository(bundled.parent).hold("demo", "up", timeout=0, interrupts=Interrupts(), new=True) as held:
        at = utc_now()
        steps = [FinishedStep(name=f"playbook:base-{number}", started_at=at, ended_at=at) for number in range(many)]
        started = create("demo", loaded.data, str(loaded.file), at).start_provision("r", at, spec=loaded.data, file="f")
        ended = started.succeed(at).start_configure("r", at, done=tuple(steps)).succeed(at)
        held.save(ended)
        assert held.load() == ended


@pytest.mark.parametrize("folder", ["{{x}}", "{% x", "${HOME}"])
def test_a_key_in_a_folder_that_would_be_evaluated(bundled: Path, folder: str) -> None:
    (bundled.parent / folder).mkdir()
    (bundled.parent / folder / "key").touch()
    assert complaints(bundled, MINIMAL + f"ssh: {{private_key: './{folder}/key'}}\n") == [
        "demo.yml:3: ssh.private_key: its path has braces that Ansible or ssh would evaluate"
    ]


def test_everything_is_told_at_once_in_the_order_of_the_file(bundled: Path) -> None:
    told = complaints(bundled, "nmae: x\nhosts:\n  web: {cpus: x}\n  Web: {}\ntimeouts: {sssh: 1}\n")
    assert [line.split(": ")[0] for line in told] == [
        "demo.yml:1",
        "demo.yml:1",
        "demo.yml:3",
        "demo.yml:4",
        "demo.yml:5",
    ]


def test_a_field_of_several_kinds_gets_one_complaint(bundled: Path) -> None:
    assert complaints(bundled, MINIMAL + "cloud_init: true\n") == [
        "demo.yml:3: cloud_init: must be a mapping (cloud-config merged into ours; false: no cloud-init)",
    ]


def test_secrets_are_not_shown(bundled: Path) -> None:
    wrong = MINIMAL + "cloud_init: s3cret\nconfigure: {variables: [s3cret]}\nprovider: {name: local, options: s3cret}\n"
    assert "s3cret" not in "\n".join(complaints(bundled, wrong))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"dmeo\.yml: no such file"):
        load_spec(tmp_path / "dmeo.yml")
    (tmp_path / "demo.yaml").touch()
    with pytest.raises(InvalidSpec) as caught:
        load_spec(tmp_path / "dmeo.yml")
    assert caught.value.help.endswith("/demo.yaml")
    with pytest.raises(InvalidSpec) as caught:
        load_spec(tmp_path / "shop.yml")
    assert caught.value.help == "deployer init", "that both are YAML does not make them alike"


@pytest.mark.parametrize("address", ["192.0.2.1", "web.example.org", "WEB", "::1", "fe80::1%eth0", "1::192.0.2.1"])
def test_an_address(bundled: Path, address: str) -> None:
    machine = f"name: demo\nprovider: existing\nhosts: {{web: {{address: '{address}'}}}}\n"
    assert load(bundled, machine).spec.hosts["web"].address == address


@pytest.mark.parametrize(
    "address", ["root@192.0.2.1", "192.0.2.1:22", "[::1]", "http://x/", "a b", "-oX=y", "", "fe80::1%ü", ".::1"]
)
def test_what_is_no_address(bundled: Path, address: str) -> None:
    machine = f"name: demo\nprovider: existing\nhosts: {{web: {{address: '{address}'}}}}\n"
    assert complaints(bundled, machine) == [
        "demo.yml:3: hosts.web.address: cannot be used as it is (For `existing`: a name or IP address, without a port)"
    ]


def test_an_address_is_as_long_as_a_name_may_be(bundled: Path) -> None:
    machine = "name: demo\nprovider: existing\nhosts: {{web: {{address: {}}}}}\n"
    spec = load(bundled, machine.format("x" * 253)).spec
    assert read_hosts({"hosts": {"web": {"address": spec.hosts["web"].address}}}, spec)
    assert "hosts.web.address: " in complaints(bundled, machine.format("x" * 254))[0]


@pytest.mark.parametrize(
    ("user", "fits"), [("admin@corp.example", True), ("j.doe", True), ("-oX=y", False), ("a b", False)]
)
def test_what_is_read_as_a_login_can_be_used_as_one(bundled: Path, user: str, *, fits: bool) -> None:
    machine = f"name: demo\nprovider: existing\nhosts: {{web: {{address: 192.0.2.1, user: '{user}'}}}}\n"
    if fits:
        spec = load(bundled, machine).spec
        given = {"address": "192.0.2.1", "user": spec.hosts["web"].user}
        assert read_hosts({"hosts": {"web": given}}, spec)["web"].user == user
    else:
        assert [c.partition(" cannot")[0] for c in complaints(bundled, machine)] == ["demo.yml:3: hosts.web.user:"]


def test_a_provider_that_is_a_path(bundled: Path) -> None:
    (bundled.parent / "infra").mkdir()
    (bundled.parent / "infra" / "main.tf").touch()
    assert load(bundled, MINIMAL + "provider: ./infra\n").spec.provider.path == str(bundled.parent / "infra")


def test_a_folder_or_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InvalidSpec, match="not a file"):
            load_spec(path)


def test_a_hostile_file_name_is_harmless(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec) as caught:
        load_spec(tmp_path / "\x1b[31mred\nx.yml")
    assert "\x1b" not in str(caught.value)
    with pytest.raises(InvalidSpec, match="no such file"):
        load_spec(tmp_path / "a\0b")


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_a_path_that_could_not_be_kept(bundled: Path, name: bytes) -> None:
    folder = bundled.parent / os.fsdecode(name)
    folder.mkdir()
    (folder / "demo.yml").write_text(MINIMAL)
    with pytest.raises(InvalidSpec, match="its path has a control character, or one that is not UTF-8"):
        load_spec(folder / "demo.yml")


def test_paths_start_from_the_folder_of_the_file_and_know_the_home(
    bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = bundled.parent / "home"
    home.mkdir()
    (home / "key").touch()
    (bundled.parent / "site.yml").touch()
    monkeypatch.setenv("HOME", str(home))
    loaded = load(bundled, MINIMAL + "ssh: {private_key: ~/key}\nconfigure: {playbooks: [base, ./site.yml]}\n")
    assert loaded.spec.ssh.private_key == str(home / "key")
    assert loaded.spec.configure.playbooks == ("base", str(bundled.parent / "site.yml"))
    # What is saved says so by itself, wherever it is read.
    assert Spec.model_validate_json(json.dumps(loaded.data)) == loaded.spec


OLD = {
    "name": "demo",
    "provider": {"name": "local", "options": {"token": "s3cret"}},
    "hosts": {"web": {"memory": 1024, "ports": {"8080": 80}, "options": {"k": "s3cret"}}, "old": {"memory": 1}},
    "cloud_init": {"chpasswd": {"list": "s3cret"}},
    "configure": {"playbooks": ["base"], "variables": {"greeting": "s3cret", "gone": "s3cret", "same": 1}},
    "ssh": {"private_key": None},
}
NEW = {
    "name": "demo",
    "provider": {"name": "local", "options": {"token": "s3cret2"}},
    "hosts": {
        "web": {"memory": 2048, "ports": {"8080": 81, "0": [1]}, "options": {"k": "s3cret2"}},
        "db": {"memory": 1},
    },
    "cloud_init": False,
    "configure": {"playbooks": ["base", "web"], "variables": {"greeting": "s3cret2", "new": "s3cret", "same": True}},
    "ssh": {"private_key": "~/key"},
}


def test_changes_are_told_without_secrets() -> None:
    assert spec_changes(OLD, NEW) == (
        "provider.options.token: changed",
        "hosts.web.memory: 1024 -> 2048",
        "hosts.web.ports.8080: 80 -> 81",
        "hosts.web.ports.0: none -> [1]",
        "hosts.web.options.k: changed",
        "hosts.old: removed",
        "hosts.db: added",
        "cloud_init: changed",
        'configure.playbooks: ["base"] -> ["base", "web"]',
        "configure.variables.greeting: changed",
        "configure.variables.gone: removed",
        "configure.variables.same: changed",
        "configure.variables.new: added",
        'ssh.private_key: none -> "~/key"',
    )
    assert spec_changes(OLD, OLD) == ()
    deep = ({"cloud_init": {"users": {"root": "s3cret"}}}, {"cloud_init": {"users": {"root": {"x": "s3cret"}}}})
    assert spec_changes(*deep) == ("cloud_init.users: changed",)
