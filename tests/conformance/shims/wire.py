"""The line protocol of the shims that are written in Python: tests/conformance/README.md describes it."""

import sys


def encode(value):
    return str(value).replace("%", "%25").replace("\t", "%09").replace("\n", "%0A").replace("\r", "%0D")


def decode(value):
    first, *parts = value.split("%")
    return first + "".join(chr(int(part[:2], 16)) + part[2:] for part in parts)


def say(verb, **fields):
    text = "\t".join([verb, *(f"{key}={encode(value)}" for key, value in fields.items())])
    # In one piece: a thread may say something at the same time.
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
