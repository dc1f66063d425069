"""The manifest's schema (agent/manifest.py) as a list of form fields: no rule about a value is written a second time here.

A *leaf* is one value that is neither a struct nor a choice of structs. Where a part is one of several kinds (`data`), there
is a leaf for the kind, and the leaves of all kinds; those of the kinds that are not chosen are ignored when text is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, get_args

import msgspec
from msgspec import inspect as shape

from agent.manifest import Data, Manifest, Model, inconsistencies, mismatch
from coordinator.experiments import words

SET_ELSEWHERE = frozenset({"format", "revision", "status"})
"""Not for a form: the site counts revisions, and a status has buttons of its own."""
TEXT_CHARS_MAX = 32_768
"""Of one field as it is typed; the manifest as a whole has its own limit."""
LINES_MAX = 256
_BETWEEN_SIDES = re.compile(r"[\s,;x×*]+")


class Unreadable(ValueError):
    """A text that is no value of its leaf; the message is a sentence for whoever typed it."""


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One value. `path` names it in forms and differences: `model.d_model`, `data.kind`, `data.text.sha256`."""

    path: str
    where: tuple[str, ...]
    """Where it stands in the manifest's JSON."""
    words: str
    """`GPTModel.d_model`: what it is called by in coordinator/experiments/words.py."""
    type: Any
    """Annotated, for msgspec.convert."""
    info: shape.Type
    variant: tuple[str, str] | None = None
    """(path of the leaf that chooses the kind, the kind that this one belongs to)."""
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """The value that was typed. Raises Unreadable."""
        text = text.replace("\r\n", "\n").strip()
        if len(text) > TEXT_CHARS_MAX:
            raise Unreadable(f"At most {TEXT_CHARS_MAX} characters.")
        if not isinstance(self.info, shape.VarTupleType):
            return _convert(text, self.type)
        item = get_args(get_args(self.type)[0])[0]
        if isinstance(self.info.item_type, shape.IntType):
            values = [_convert(side, item) for side in _BETWEEN_SIDES.split(text) if side]
        else:
            lines = [line.strip() for line in text.split("\n") if line.strip()]
            values = [_line(i, line, item) for i, line in enumerate(lines[:LINES_MAX], 1)]
        return _convert(values, self.type)

    def write(self, value: Any) -> str:
        """The text that `read` reads back as `value`."""
        if isinstance(self.info, shape.VarTupleType):
            if isinstance(self.info.item_type, shape.IntType):
                return " × ".join(map(str, value))
            return "\n".join(" ".join(msgspec.structs.astuple(x)).strip() if isinstance(x, msgspec.Struct) else x for x in value)
        return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _line(number: int, line: str, item: Any) -> Any:
    try:
        if not (isinstance(item, type) and issubclass(item, msgspec.Struct)):
            return _convert(line, item)
        fields, parts = msgspec.structs.fields(item), line.split()
        if len(parts) > len(fields):
            raise Unreadable(f"At most {len(fields)} parts: {', '.join(f.name for f in fields)}.")
        return {f.name: _convert(word, f.type) for f, word in zip(fields, parts, strict=False)}
    except Unreadable as e:
        raise Unreadable(f"Line {number}: {e}") from None


def _convert(value: Any, type_: Any) -> Any:
    try:
        found = msgspec.convert(value, type_, strict=False)
    except msgspec.ValidationError:
        raise Unreadable(bounds(_info(type_))) from None
    if isinstance(found, float) and not math.isfinite(found):
        raise Unreadable(bounds(_info(type_)))
    return found


def _info(type_: Any) -> shape.Type:
    info = shape.type_info(type_)
    return info.type if isinstance(info, shape.Metadata) else info


def bounds(info: shape.Type) -> str:
    """What may be typed, in a sentence."""
    if isinstance(info, shape.IntType):
        return f"A whole number{_range(info)}."
    if isinstance(info, shape.FloatType):
        return f"A number{_range(info)}."
    if isinstance(info, shape.VarTupleType):
        few, many = info.min_length or 0, info.max_length
        what = "numbers" if isinstance(info.item_type, shape.IntType) else "lines"
        return f"{few} to {many} {what}." if few else f"At most {many} {what}."
    if isinstance(info, shape.StrType):
        if info.pattern:
            return PATTERNS.get(info.pattern, "This does not have the form that is asked for.")
        return (
            f"{info.min_length or 0} to {info.max_length} characters."
            if info.min_length
            else f"At most {info.max_length} characters."
        )
    return "Choose one of these."


PATTERNS: dict[str, str] = {
    r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z": "Small letters, digits and hyphens between them; at most 63.",
    r"^wss?://[^\s/?#@]{1,230}/[a-z2-7]{52}\Z": "ws://host:port/PEERID or wss://…, as a bootstrap agent prints it.",
    r"^([0-9a-f]{64})?\Z": "64 digits 0-9 and a-f, as sha256sum prints them, or nothing.",
    r"^(stun|stuns|turn|turns):.{1,290}\Z": "stun:host:port, or turn:host:port with a user name and a password behind it.",
}
"""The schema's patterns in words. A test holds that none is missing."""


def _range(info: shape.IntType | shape.FloatType) -> str:
    ge, gt, le, lt = (None if x is None else f"{x:,.12g}" for x in (info.ge, info.gt, info.le, info.lt))
    low = f"of at least {ge}" if ge is not None else f"above {gt}" if gt is not None else ""
    high = f"at most {le}" if le is not None else f"below {lt}" if lt is not None else ""
    if ge is not None and le is not None:
        return f" from {ge} to {le}"
    return "".join(f" {part}" for part in (low, "and" if low and high else "", high) if part)


# All leaves


@cache
def leaves() -> tuple[Leaf, ...]:
    """Of the manifest, in the schema's order."""
    return tuple(_leaves(Manifest, (), "", None))


def leaf(path: str) -> Leaf:
    """Raises KeyError."""
    return {each.path: each for each in leaves()}[path]


def _leaves(struct: Any, where: tuple[str, ...], prefix: str, variant: tuple[str, str] | None) -> Iterator[Leaf]:
    for each in msgspec.structs.fields(struct):
        if not where and each.name in SET_ELSEWHERE:
            continue
        place, path = (*where, each.name), f"{prefix}{each.name}"
        kinds = [k for k in get_args(each.type) if isinstance(k, type) and issubclass(k, msgspec.Struct)]
        if isinstance(each.type, type) and issubclass(each.type, msgspec.Struct):
            yield from _leaves(each.type, place, f"{path}.", variant)
        elif kinds:
            names = tuple(str(k.__struct_config__.tag) for k in kinds)
            called = f"{struct.__name__}.{each.name}"
            kind_type: Any = Literal[names]
            kind_path, tag_field = f"{path}.kind", str(kinds[0].__struct_config__.tag_field)
            yield Leaf(
                path=kind_path,
                where=(*place, tag_field),
                words=called,
                type=kind_type,
                info=shape.type_info(kind_type),
                variant=variant,
                choices=names,
            )
            for name, kind in zip(names, kinds, strict=True):
                yield from _leaves(kind, place, f"{path}.{name}.", (kind_path, name))
        else:
            info = _info(each.type)
            choices = tuple(map(str, info.values)) if isinstance(info, shape.LiteralType) else ()
            yield Leaf(
                path=path,
                where=place,
                words=f"{struct.__name__}.{each.name}",
                type=each.type,
                info=info,
                variant=variant,
                choices=choices,
            )


# Texts to a manifest and back


@dataclass(kw_only=True)
class Reading:
    """What came of reading a form."""

    manifest: Manifest | None = None
    errors: dict[str, list[str]] = field(default_factory=dict)
    """By path; "" for what is no single field's."""


def read(texts: Mapping[str, str], *, revision: int = 1, status: str = "open") -> Reading:
    """The manifest that the texts describe, by path of leaf, or every reason why they describe none."""
    reading = Reading()
    tree: dict[str, Any] = {}
    for each in leaves():
        if each.variant and texts.get(each.variant[0], "").strip() != each.variant[1]:
            continue
        try:
            value = each.read(texts.get(each.path, ""))
        except Unreadable as e:
            reading.errors.setdefault(each.path, []).append(str(e))
            continue
        node = tree
        for name in each.where[:-1]:
            node = node.setdefault(name, {})
        node[each.where[-1]] = value
    tree |= {"revision": revision, "status": status}
    for name, kind in untagged():
        tree.setdefault(name, {}).setdefault(kind.__struct_config__.tag_field, kind.__struct_config__.tag)
    _check_together(tree, reading)
    if reading.errors:
        return reading
    try:
        reading.manifest = msgspec.convert(tree, Manifest)
    except msgspec.ValidationError as e:
        reading.errors[""] = [str(e)]
    return reading


def _check_together(tree: dict[str, Any], reading: Reading) -> None:
    """What does not fit together, as far as the values by themselves can be read."""
    if any(path.startswith("model.") for path in reading.errors):
        return
    try:
        model: Model = msgspec.convert(tree["model"], Model)
    except msgspec.ValidationError as e:
        reading.errors.setdefault("", []).append(str(e))
        return
    for name, what in inconsistencies(model):
        of_kind = ("model.kind", str(model.__struct_config__.tag))
        found = next(each.path for each in leaves() if each.where == ("model", name) and each.variant == of_kind)
        reading.errors.setdefault(found, []).append(_in_words(what, of_kind))
    if any(path.startswith("data.") for path in reading.errors):
        return
    data: Data = msgspec.convert(tree["data"], Data)
    if what := mismatch(model, data):
        reading.errors.setdefault("data.kind", []).append(f"{what[0].upper()}{what[1:]}.")


def _in_words(what: str, kind: tuple[str, str]) -> str:
    """With the fields of this kind of model called as the form calls them."""
    labels = {each.where[-1]: words.label(each.words).lower() for each in leaves() if each.variant == kind}
    text = re.sub(r"[a-z_]+", lambda match: labels.get(match[0], match[0]), what)
    return f"{text[0].upper()}{text[1:]}."


def untagged() -> Iterator[tuple[str, Any]]:
    """Parts that are of a single, tagged kind: the tag is not asked for, but decoding wants it."""
    for each in msgspec.structs.fields(Manifest):
        if isinstance(each.type, type) and issubclass(each.type, msgspec.Struct) and each.type.__struct_config__.tag:
            yield each.name, each.type


def write(manifest: Manifest) -> dict[str, str]:
    """The texts that `read` reads back as `manifest`; kinds that are not chosen show their defaults."""
    texts: dict[str, str] = {}
    for each in leaves():
        value = value_of(manifest, each)
        texts[each.path] = "" if value is msgspec.UNSET else each.write(value)
    return texts


def value_of(manifest: Manifest, each: Leaf) -> Any:
    """The leaf's value in `manifest`; its default if it belongs to a kind that is not chosen; UNSET if it has none."""
    part: Any = manifest
    for name in each.where[:-1]:
        part = getattr(part, name)
    if each.path.endswith(".kind") and each.choices:
        return part.__struct_config__.tag
    if each.variant and part.__struct_config__.tag != each.variant[1]:
        return _default(each)
    return getattr(part, each.where[-1])


def _default(each: Leaf) -> Any:
    assert each.variant is not None, "only kinds that may be not chosen have defaults here"
    parent = leaf(each.variant[0])
    annotation = next(f.type for f in msgspec.structs.fields(Manifest) if f.name == parent.where[0])
    kind = next(k for k in get_args(annotation) if k.__struct_config__.tag == each.variant[1])
    default = next(f.default for f in msgspec.structs.fields(kind) if f.name == each.where[-1])
    return msgspec.UNSET if default is msgspec.NODEFAULT else default


def parts(**structs: msgspec.Struct) -> dict[str, str]:
    """The texts of whole parts of a manifest, such as `model=GPTModel(…)`."""
    manifest = Manifest(name="x", revision=1, title="x", **structs)  # type: ignore[arg-type]
    return {path: text for path, text in write(manifest).items() if path.partition(".")[0] in structs}
