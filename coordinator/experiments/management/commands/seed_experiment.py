"""`manage.py seed_experiment gpt-crowd`: publish a preset, or a manifest from a JSON file, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agent.errors import HiveError
from agent.manifest import Manifest, decode
from coordinator.experiments.actions import seed
from coordinator.experiments.presets import PRESETS


class Command(BaseCommand):
    help = "Publish an experiment if it does not exist yet. Running it again changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", default="gpt-crowd", help=f"a preset: {', '.join(PRESETS)}")
        parser.add_argument("--manifest", type=Path, metavar="FILE", help="a manifest's JSON, instead of a preset")
        parser.add_argument("--update", action="store_true", help="publish a new revision if the content differs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            revision, new = seed(self._manifest(options["name"], options["manifest"]), update=options["update"])
        except HiveError as e:
            raise CommandError(str(e)) from e
        name = revision.experiment.name
        self.stdout.write(f"{name}: revision {revision.revision} {'published' if new else 'is already there'}")

    def _manifest(self, name: str, file: Path | None) -> Manifest:
        if file is not None:
            try:
                return decode(file.read_bytes())
            except OSError as e:
                raise CommandError(f"cannot read {file}: {e.strerror}") from e
        if name not in PRESETS:
            raise CommandError(f"there is no preset {name!r}; there is: {', '.join(PRESETS)}")
        return PRESETS[name]
