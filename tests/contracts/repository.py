"""What every store of environments must do. A store's test class inherits RepositoryContract and makes the store."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest

from deployer.environment import AnyEnvironment, Failure, Host, create, encode
from deployer.errors import FailureKind, Interrupted, InvalidInput, Locked, UnknownEnvironment, UnreadableState
from deployer.process import Interrupts, own_identity
from deployer.storage.repository import EnvironmentRepository, HeldEnvironment

AT = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
NOT_NAMES = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc",
    "A",
    "ä",
    "a b",
    "-a",
    "a-",
    "a" * 41,
    "x" * 300,
    "a\n",
    "a\x00",
    "a.b",
)


class RepositoryContract:
    """The promises of `deployer.storage.repository`, tried one by one.

    A store's class gives two fixtures: `repository`, an empty EnvironmentRepository, and `damage(name, text)`, which
    puts a text where the state of an environment is.
    """

    def hold(
        self, repository: EnvironmentRepository, name: str = "demo", *, timeout: float = 0.0, new: bool = False
    ) -> AbstractContextManager[HeldEnvironment]:
        return repository.hold(name, "provision", timeout=timeout, interrupts=Interrupts(), new=new)

    @pytest.fixture
    def demo(self, repository: EnvironmentRepository) -> AnyEnvironment:
        environment = create("demo", {"ö": [1, None, {"x": 2.5}]}, "/work", AT)
        with self.hold(repository, new=True) as held:
            held.save(environment)
        return environment

    def test_a_new_store_is_empty(self, repository: EnvironmentRepository) -> None:
        assert repository.names() == ()
        assert repository.holder("demo") is None

    def test_what_was_saved_is_loaded(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        assert repository.load("demo") == demo
        assert type(repository.load("demo")) is type(demo)
        with self.hold(repository) as held:
            assert held.load() == demo

    def test_the_last_save_counts(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        run = create("demo", {}, "/work", AT).start_provision("r1", AT, spec={}, file="/d")
        hosts = {"web": Host(address="10.0.0.7", user="root", port=22, ports=(), id=None, console=None)}
        failure = Failure(step="wait_ssh", kind=FailureKind.UNREACHABLE, cause="no route", at=AT, log="/log")
        states: list[AnyEnvironment] = [run, run.begin("tofu_apply", AT), run.found_hosts(hosts, AT), run.fail(failure)]
        with self.hold(repository) as held:
            for state in states:
                held.save(state)
                assert held.load() == repository.load("demo") == state
        assert repository.load("demo") == states[-1]

    def test_names_are_those_with_a_state_sorted(self, repository: EnvironmentRepository) -> None:
        for name in ("b", "a-1", "z", "a"):
            with self.hold(repository, name, new=True) as held:
                held.save(create(name, {}, "/work", AT))
        with self.hold(repository, "nothing-saved", new=True) as held:
            assert held.load() is None
        assert repository.names() == ("a", "a-1", "b", "z")

    def test_an_unknown_name_is_told_with_what_was_meant(
        self, repository: EnvironmentRepository, demo: AnyEnvironment
    ) -> None:
        for attempt in (lambda: repository.load("demp"), lambda: self.hold(repository, "demp").__enter__()):
            with pytest.raises(UnknownEnvironment, match="demp") as caught:
                attempt()
            assert "demo" in caught.value.detail
        assert repository.names() == ("demo",), "asking made nothing"

    def test_what_is_no_name_reaches_no_store(self, repository: EnvironmentRepository) -> None:
        for name in NOT_NAMES:
            with pytest.raises(InvalidInput):
                repository.load(name)
            with pytest.raises(InvalidInput), self.hold(repository, name, new=True):
                pass
            with pytest.raises(InvalidInput):
                repository.holder(name)

    def test_only_the_held_object_can_save(self, repository: EnvironmentRepository) -> None:
        assert not hasattr(repository, "save")
        with self.hold(repository, new=True) as held:
            assert hasattr(held, "save")

    def test_one_holder_at_a_time(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        with self.hold(repository) as held:
            held.at_step("tofu_apply")
            with pytest.raises(Locked) as caught, self.hold(repository):
                pass
        holder = caught.value.holder
        assert (holder["pid"], holder["command"], holder["step"]) == (os.getpid(), "provision", "tofu_apply")
        assert holder["alive"] is True
        assert holder["since"]
        with self.hold(repository):
            pass

    def test_another_environment_is_another_lock(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        with self.hold(repository), self.hold(repository, "other", new=True) as other:
            other.save(create("other", {}, "/work", AT))

    def test_readers_need_no_lock(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        with self.hold(repository) as held:
            assert repository.load("demo") == demo
            assert repository.names() == ("demo",)
            held.save(demo)
            assert repository.load("demo") == demo

    def test_the_holder_is_told(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        assert repository.holder("demo") is None
        with self.hold(repository) as held:
            record = repository.holder("demo")
            assert record is not None
            assert (record.pid, record.command, record.step, record.alive) == (os.getpid(), "provision", "", True)
            held.at_step("wait_ssh")
            record = repository.holder("demo")
            assert record is not None
            assert record.step == "wait_ssh"
        assert repository.holder("demo") is None

    def test_children_are_on_record(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        me = own_identity()
        with self.hold(repository) as held:
            held.child_started(me, "tofu apply")
            held.at_step("tofu_apply")
            record = repository.holder("demo")
            assert record is not None
            assert [(c.pid, c.started, c.doing) for c in record.children] == [(me.pid, me.started, "tofu apply")]
            held.child_ended(me)
            record = repository.holder("demo")
            assert record is not None
            assert record.children == ()

    def test_an_exception_frees_the_lock(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        with pytest.raises(KeyError), self.hold(repository):
            raise KeyError
        with self.hold(repository):
            assert repository.load("demo") == demo

    def test_waiting_wins(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        holding, let_go, waiting = threading.Event(), threading.Event(), threading.Event()

        def holder() -> None:
            with self.hold(repository):
                holding.set()
                assert waiting.wait(10)
                let_go.wait(0.3)

        thread = threading.Thread(target=holder)
        thread.start()
        assert holding.wait(10)
        waiting.set()
        with self.hold(repository, timeout=30) as held:
            assert held.load() == demo
        thread.join(10)

    def test_a_wait_that_is_too_short_is_lost(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        with self.hold(repository), pytest.raises(Locked), self.hold(repository, timeout=0.2):
            pass

    def test_a_wait_can_be_interrupted(self, repository: EnvironmentRepository, demo: AnyEnvironment) -> None:
        interrupts = Interrupts()
        timer = threading.Timer(0.2, interrupts.request)
        timer.start()
        with (
            self.hold(repository),
            pytest.raises(Interrupted) as caught,
            repository.hold("demo", "destroy", timeout=60, interrupts=interrupts),
        ):
            pass
        assert caught.value.exit_code == 130
        timer.join()

    @pytest.mark.parametrize("text", ["", "{", "null", '{"state": "running"}', "demo", '{"state": "created"}'])
    def test_what_is_no_environment_is_never_taken_for_none(
        self,
        repository: EnvironmentRepository,
        demo: AnyEnvironment,
        damage: Callable[[str, str], None],
        text: str,
    ) -> None:
        damage("demo", text)
        with pytest.raises(UnreadableState) as caught:
            repository.load("demo")
        assert caught.value.exit_code == 5
        with pytest.raises(UnreadableState), self.hold(repository) as held:
            held.load()
        assert repository.names() == ("demo",)

    def test_a_state_of_another_environment_is_refused(
        self, repository: EnvironmentRepository, demo: AnyEnvironment, damage: Callable[[str, str], None]
    ) -> None:
        damage("demo", encode(create("other", {}, "/work", AT)))
        with pytest.raises(UnreadableState, match="other"):
            repository.load("demo")

    def test_what_is_saved_is_a_copy(self, repository: EnvironmentRepository) -> None:
        environment = create("demo", {"hosts": "web"}, "/work", AT)
        with self.hold(repository, new=True) as held:
            held.save(environment)
        environment.spec["hosts"] = "changed behind our back"
        assert repository.load("demo") == create("demo", {"hosts": "web"}, "/work", AT)
