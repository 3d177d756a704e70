"""Damage: bytes of a file flipped, cut and moved, and fields of the message changed behind protobuf's back."""

from __future__ import annotations

import random
from collections.abc import Iterator

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_INTEGERS = (0, 1, 2, -1, 7, 8, 10, 16, 21, 26, 27, 99, 2**31 - 1, 2**31, 2**40, 2**60, 2**62, -(2**62), 2**63 - 1)
_WORDS = ("", "x", "y", "c", "n", "w", "If", "Loop", "Scan", "Reshape", "Constant", "my.ops", "ai.onnx.ml", "axis", "to", "body",
          "Split", "LabelEncoder", "EyeLike")  # fmt: skip
_WHOLE = (
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_ENUM,
)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, overwrite, truncate, delete, duplicate, or plant a huge number."""
    out = bytearray(data)
    at = rng.randrange(len(out))
    length = rng.choice((1, 4, 32, 300))
    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        del out[at:]
    elif kind == 3:
        del out[at : at + length]
    elif kind == 4:
        where = rng.randrange(len(out))
        out[where:where] = out[at : at + length]
    else:
        out[at : at + rng.choice((1, 2, 9))] = b"\xff" * rng.choice((1, 2, 9)) + b"\x01"
    return bytes(out)


def mutate_message(data: bytes, rng: random.Random) -> bytes:
    """Change one to six fields of the model, anywhere: clear, duplicate, swap, or set to an awkward value."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        messages = list(_messages(model))
        target = rng.choice(messages)
        present = [field for field, _ in target.ListFields()]
        field = rng.choice(present if present and rng.random() < 0.8 else list(target.DESCRIPTOR.fields))
        try:
            _change(target, field, messages, rng)
        except (ValueError, TypeError):  # a value the field cannot hold: one change fewer
            continue
    return model.SerializeToString()


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, content in message.ListFields():
        if field.message_type is not None:
            for inner in list(content)[:60] if field.is_repeated else [content]:
                yield from _messages(inner)


def _change(target: Message, field: FieldDescriptor, messages: list[Message], rng: random.Random) -> None:
    content = getattr(target, field.name)
    action = rng.randrange(4)
    if action == 0 and not (field.is_repeated and len(content)):
        target.ClearField(field.name)
    elif field.is_repeated and action == 0:
        del content[rng.randrange(len(content))]
    elif field.message_type is not None and field.is_repeated:
        if action == 1 and len(content):
            content.add().CopyFrom(rng.choice(list(content)))
        elif action == 2 and len(content) > 1:
            i, j = rng.randrange(len(content)), rng.randrange(len(content))
            kept = type(content[i])()
            kept.CopyFrom(content[i])
            content[i].CopyFrom(content[j])
            content[j].CopyFrom(kept)
        else:
            content.add()
    elif field.message_type is not None:
        others = [m for m in messages if m.DESCRIPTOR is field.message_type]
        if others and action == 1:
            kept = type(others[0])()
            kept.CopyFrom(rng.choice(others))
            content.CopyFrom(kept)
        else:
            content.SetInParent()
    elif field.is_repeated:
        if action == 1 and len(content):
            i = rng.randrange(len(content))
            content[i] = _scalar(field, content[i], messages, rng)
        else:
            content.append(_scalar(field, 0, messages, rng))
    else:
        setattr(target, field.name, _scalar(field, content, messages, rng))


def _scalar(field: FieldDescriptor, old: object, messages: list[Message], rng: random.Random) -> object:
    if field.enum_type is not None:
        return rng.choice([entry.number for entry in field.enum_type.values])
    if field.type in _WHOLE:
        number = rng.choice((*_INTEGERS, *((old + 1, old - 1) if isinstance(old, int) else ())))
        if field.type == FieldDescriptor.TYPE_UINT64:
            return abs(number)
        return max(-(2**31), min(2**31 - 1, number)) if field.type == FieldDescriptor.TYPE_INT32 else number
    if field.type == FieldDescriptor.TYPE_STRING:
        names = [name for m in messages if isinstance(m, onnx.NodeProto) for name in (*m.output, *m.input)]
        return rng.choice((*_WORDS, *names[:200]))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice((b"", b"x", b"linear", b"\xff" * rng.randrange(40)))
    return rng.choice((0.0, 1.0, -1.0, 3e38, float("nan")))
