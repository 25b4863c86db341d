"""A stand-in for the module ``tensorrt`` in the forms of TensorRT 8.6, 10.3, 10.14 and 11.

``personality(version)`` makes a fresh module. Names that a version does not have are not there:
touching one raises AttributeError, as pybind11's classes do. Every call and every attribute that
is set is recorded in ``module.fake.calls``. Which names a version has, and what its methods take,
is compared with NVIDIA's Python bindings of 8.6.1, 10.3, 10.14 and 11.1
(``tests/integration/test_tensorrt_api.py``).

Each concern has its module: ``enums``, ``builder``, ``network``, ``parser``, ``registry``,
``engine`` (engine, inspector, refitter), ``plan`` (the bytes of a plan).
"""

from __future__ import annotations

from types import ModuleType

from tests.support.fake_tensorrt import builder, engine, enums, network, parser, registry
from tests.support.fake_tensorrt.api import Fake, specialise

#: Personality -> what ``__version__`` says.
VERSIONS = {"8.6": "8.6.0", "10.3": "10.3.0", "10.14": "10.14.1.48", "11": "11.1.0.106"}
#: Modules with classes; a later one may replace a class of an earlier one.
PARTS = (builder, network, parser, registry, engine)


def personality(version: str, **behaviour: object) -> ModuleType:
    """The module ``tensorrt`` of one version; ``behaviour`` sets attributes of ``module.fake``."""
    text = VERSIONS[version]
    numbers = tuple(int(part) for part in text.split(".")[:2])
    module = ModuleType("tensorrt")
    module.__version__ = text
    module.fake = Fake(version=text, release=(numbers[0], numbers[1]), module=module)
    for name, value in behaviour.items():
        if not hasattr(module.fake, name):
            raise AttributeError(f"the fake TensorRT has no behaviour {name!r}")
        setattr(module.fake, name, value)
    for name, enum in enums.enums_of(module.fake.release).items():
        setattr(module, name, enum)
    for part in PARTS:
        for cls in part.CLASSES:
            made = specialise(cls, module.fake)
            if made is not None:
                setattr(module, cls.__name__, made)
        for name, function in getattr(part, "functions_of", lambda _: {})(module).items():
            setattr(module, name, function)
    return module
