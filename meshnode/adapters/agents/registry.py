"""The specialists by short name, as ``--with`` and a config file call them.

Importing this costs little: what is heavy is loaded when an agent is opened or first
runs, in the node that hosts it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from meshnode.adapters.agents.specialists import (
    abstract_writing,
    data_analysis,
    json_extraction,
    keyword_extraction,
    language_identification,
    lint,
    math,
    prompt_injection_detection,
    report_writing,
    security_audit,
    sentiment,
    summarization,
    support_check,
    unit_conversion,
)
from meshnode.errors import ConfigError
from meshnode.ports import Agent

#: Makes the agent of each name; nothing is loaded by it.
SPECIALISTS: Mapping[str, Callable[[], Agent]] = MappingProxyType(
    {
        "abstract_writing": abstract_writing.create,
        "data_analysis": data_analysis.create,
        "json_extraction": json_extraction.create,
        "keyword_extraction": keyword_extraction.create,
        "language_identification": language_identification.create,
        "lint": lint.create,
        "math": math.create,
        "prompt_injection_detection": prompt_injection_detection.create,
        "report_writing": report_writing.create,
        "security_audit": security_audit.create,
        "sentiment": sentiment.create,
        "summarization": summarization.create,
        "support_check": support_check.create,
        "unit_conversion": unit_conversion.create,
    }
)


def create(name: str) -> Agent:
    """Return a new agent of the specialist ``name``; ``open`` says what it lacks.

    Raises:
        ConfigError: There is no specialist of that name; lists those there are.
    """
    factory = SPECIALISTS.get(name)
    if factory is None:
        raise ConfigError(
            f"there is no specialist {name!r}", hint="there are: " + ", ".join(SPECIALISTS)
        )
    return factory()
