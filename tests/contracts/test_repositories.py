"""The stores we have, each against the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deployer.storage.repository import FileRepository
from tests.contracts.memory import MemoryRepository
from tests.contracts.repository import RepositoryContract


class TestFiles(RepositoryContract):
    @pytest.fixture
    def repository(self, tmp_path: Path) -> FileRepository:
        return FileRepository(tmp_path / "home")

    @pytest.fixture
    def damage(self, repository: FileRepository) -> Callable[[str, str], None]:
        def damage(name: str, text: str) -> None:
            repository.folder(name).state.write_text(text)

        return damage


class TestMemory(RepositoryContract):
    @pytest.fixture
    def repository(self) -> MemoryRepository:
        return MemoryRepository()

    @pytest.fixture
    def damage(self, repository: MemoryRepository) -> Callable[[str, str], None]:
        def damage(name: str, text: str) -> None:
            repository.slots[name].text = text

        return damage
