"""The form of an experiment, made from the manifest's schema. It gives back what was typed, with every error beside its field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django import forms
from msgspec import inspect as shape

from agent.manifest import Manifest
from coordinator.experiments import schema, words
from coordinator.experiments.schema import Leaf


class ManifestForm(forms.Form):
    """`manifest` is set once it is valid. `name_fixed` keeps the name that agents know already."""

    manifest: Manifest | None = None

    def __init__(self, texts: Mapping[str, str] | None, *, initial: Mapping[str, str], name_fixed: str = "") -> None:
        super().__init__(texts, initial=dict(initial))
        self._name_fixed = name_fixed
        for each in schema.leaves():
            self.fields[each.path] = _field(each)
        if name_fixed:
            del self.fields["name"]

    def clean(self) -> dict[str, Any]:
        texts = {name: str(self.data.get(name, "")) for name in self.fields}
        reading = schema.read(texts | ({"name": self._name_fixed} if self._name_fixed else {}))
        for path, found in reading.errors.items():
            for error in found:
                self.add_error(path if path in self.fields else None, error)
        self.manifest = reading.manifest
        return self.cleaned_data

    def groups(self) -> Iterator[dict[str, Any]]:
        """The fields in the groups in which pages show them."""
        for group in words.GROUPS:
            fields = [self[name] for name in self.fields if words.group_of(name) is group]
            if fields:
                wrong = any(field.errors for field in fields)
                yield {"group": group, "fields": fields, "open": wrong or not group.folded}

    @staticmethod
    def label_of(path: str) -> str:
        return words.label(schema.leaf(path).words)

    @property
    def wrong_count(self) -> int:
        return sum(len(errors) for errors in self.errors.values())


def _field(each: Leaf) -> forms.Field:
    """Required or not, valid or not: that is the schema's business, so this only knows how the field looks."""
    number = isinstance(each.info, shape.IntType | shape.FloatType)
    parts = (words.hint(each.words), schema.bounds(each.info) if number else "")
    field = forms.CharField(
        label=words.label(each.words),
        required=False,
        strip=False,
        help_text=" ".join(part for part in parts if part),
        widget=_widget(each),
    )
    field.kind = each.variant[1] if each.variant else ""
    return field


def _widget(each: Leaf) -> forms.Widget:
    attrs: dict[str, Any] = {"autocomplete": "off"}
    if each.choices:
        options = words.choices(each.words, each.choices)
        return (
            forms.RadioSelect(choices=options)
            if each.path.endswith(".kind") or each.path == "admission"
            else forms.Select(choices=options)
        )
    if isinstance(each.info, shape.IntType | shape.FloatType):
        return forms.TextInput(attrs=attrs | {"inputmode": "numeric" if isinstance(each.info, shape.IntType) else "decimal"})
    if isinstance(each.info, shape.VarTupleType) and not isinstance(each.info.item_type, shape.IntType):
        return forms.Textarea(attrs=attrs | {"rows": 3, "spellcheck": "false", "wrap": "off"})
    if isinstance(each.info, shape.StrType) and (each.info.max_length or 0) > 1000:
        return forms.Textarea(attrs=attrs | {"rows": 4, "maxlength": each.info.max_length})
    if isinstance(each.info, shape.StrType) and each.info.max_length:
        attrs["maxlength"] = each.info.max_length
    return forms.TextInput(attrs=attrs)
