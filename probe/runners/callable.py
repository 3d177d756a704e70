"""``python:module.fn``: the user's own engine as a function from feeds to tensors."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import InputError, ProbeError
from probe.results.tensors import RunHeader
from probe.runners.protocol import Array, RunnerTensor
from probe.runners.provenance import Provenance, as_array, environment

if TYPE_CHECKING:
    from probe.model.model import Model

_USAGE = "write a function fn(feeds: dict[str, numpy.ndarray]) that returns a dict of arrays, or yields (name, array)"


class CallableRunner:
    """Calls ``fn(feeds)`` once an input set.

    ``fn`` gets a dict of numpy arrays of its own and returns a mapping name -> array, or yields ``(name, array)`` pairs in execution
    order, each recorded before the next is asked for. An attribute ``probe_precision`` ("fp16") on it becomes the run's precision.

    Raises:
        InputError: the module or function cannot be found or imported.
    """

    name = "python"

    def __init__(self, target: str, model: Model | None = None) -> None:
        self._target = target
        self._function = find_callable(target)
        self._provenance = Provenance(model)
        self._header = RunHeader(
            runner=f"python:{target}",
            model="" if model is None else str(model.path),
            model_sha256="" if model is None else model.sha256,
            precision=str(getattr(self._function, "probe_precision", "")),
            environment=environment(),
        )

    @property
    def header(self) -> RunHeader:
        return self._header

    def run(self, feeds: Mapping[str, Array], input_id: str) -> Iterator[RunnerTensor]:
        """As ``Runner.run``.

        Raises:
            InputError: the function raised, or returned something else than named arrays.
        """
        owner = f"python:{self._target}"
        pairs = iter(self._pairs(feeds))
        seen: set[str] = set()
        while True:
            try:
                pair: Any = next(pairs, None)
            except (ProbeError, KeyboardInterrupt):
                raise
            except BaseException as error:  # SystemExit too: the user's code ended, not probe
                raise explain_failure(f"{owner} failed on input {input_id!r}", error) from error
            if pair is None:
                break
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                raise InputError(f"{owner} yielded {_glimpse(pair)}, not (name, array)", hint=_USAGE)
            name, value = pair
            del pair
            if self._provenance.is_input(name):
                raise InputError(
                    f"{owner} returned {name!r}, which is an input of the model", hint="return what is computed only"
                )
            if name in seen:
                raise InputError(f"{owner} returned {name!r} twice", hint="tensor names are unique")
            seen.add(name)
            array = as_array(name, value, owner)
            del value
            yield self._provenance.tensor(name, array, input_id)
            del array
        if not seen:
            raise InputError(f"{owner} returned no tensors for input {input_id!r}", hint=_USAGE)

    def _pairs(self, feeds: Mapping[str, Array]) -> Iterator[Any]:
        # Copies: a function that works in place must not change what was recorded as its input.
        result: Any = self._function({name: array.copy() for name, array in feeds.items()})
        if isinstance(result, Mapping):
            yield from list(result.items())
        elif isinstance(result, Iterable) and not isinstance(result, (str, bytes)) and not hasattr(result, "__array__"):
            yield from result
        else:
            raise InputError(f"python:{self._target} returned {_glimpse(result)}", hint=_USAGE)

    def close(self) -> None:
        return None


def find_callable(target: str) -> Callable[[dict[str, Array]], Any]:
    """``module.fn``, ``module:fn``, ``package.module:Class.method`` or ``FILE.py:fn``.

    Raises:
        InputError: the file or module is not there, fails to import, or has no such callable.
    """
    module_name, colon, path = target.rpartition(":")
    if not colon:
        module_name, _, path = target.rpartition(".")
    if not module_name or not path:
        raise InputError(
            f"{target!r} names no function", where="--runner", hint="python:module.function or python:FILE.py:function"
        )
    module = _load_file(Path(module_name)) if module_name.endswith(".py") else _load_module(module_name)
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
            raise InputError(
                f"{module_name} has no {part!r}",
                where="--runner",
                hint=f"it has {', '.join(public[:8]) or 'no functions'}",
            )
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{target} is a {type(found).__name__}, not a function", where="--runner", hint=_USAGE)
    return found


def _load_module(name: str) -> Any:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)  # as `python -m` does: the user's engine lies where the user stands
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (error.name == name or name.startswith(f"{error.name}.")):
            hint = f"no module {error.name!r} in {folder} or among installed packages; python:FILE.py:fn names a file"
            raise InputError(f"cannot find the module {name!r}", where="--runner", hint=hint) from error
        raise explain_failure(f"importing {name} failed", error) from error
    except Exception as error:
        raise explain_failure(f"importing {name} failed", error) from error
    finally:
        _remove_once(folder)


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"no such file: {path}", where="--runner")
    spec = importlib.util.spec_from_file_location(f"probe_runner_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise explain_failure(f"importing {path} failed", error) from error
    finally:
        _remove_once(folder)
    return module


def _remove_once(folder: str) -> None:
    if folder in sys.path:  # the user's module may have tidied up itself
        sys.path.remove(folder)


def explain_failure(what: str, error: BaseException) -> InputError:
    """The user's exception, with the last lines of its traceback that are not probe's own."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__ and "importlib" not in f.filename
    ]
    tail = [
        f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line or ''}".rstrip(": ") for frame in frames[-3:]
    ]
    if isinstance(error, SyntaxError):
        tail = [f"{error.filename}:{error.lineno}: {(error.text or '').strip()}"]
    said = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return InputError(f"{what}: {said[-1] if said else type(error).__name__}", where="\n         ".join(tail))


def _glimpse(value: Any) -> str:
    kind = type(value).__name__
    return f"a {kind}" if value is not None else "nothing"
