"""The datasets file as YAML: every value as the text that stands there, no key twice, no secret in a message.

Not here: which keys there are, and what they mean (``datasets``).
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from event_archive.config.variables import shown, shown_quoted
from event_archive.errors import ConfigurationError


class TextLoader(yaml.BaseLoader):
    """Reads every value as text, and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As of any loader; raises ConfigurationError with the keys that stand twice."""
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [key for key, count in counts.items() if count > 1]:
            line = node.start_mark.line + 1
            raise ConfigurationError(
                f"{', '.join(map(shown, twice))} stands there twice, in what begins at line {line}"
            )
        return super().construct_mapping(node, deep=deep)


def read_document(path: str) -> dict[str, Any]:
    """The file's keys and values, those of ``datasets`` among them; all else is as it stands there.

    Raises:
        ConfigurationError: it cannot be read, is no YAML, has a key twice, or describes no dataset.
    """
    try:
        document = yaml.load(Path(path).read_text(encoding="utf-8-sig"), TextLoader)  # noqa: S506 (a BaseLoader: text only)
    except OSError as error:
        raise ConfigurationError(
            f"DATASETS_FILE holds {shown_quoted(path)}, which cannot be read: {error.strerror}."
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"The datasets file {path} is not UTF-8.") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"The datasets file {path} is not right: {error}.") from None
    except yaml.MarkedYAMLError as error:
        # Without the line itself, which may hold anything.
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        problem = re.sub(r"(found undefined (alias|tag handle)) .*", r"\1", error.problem or "", flags=re.DOTALL)
        raise ConfigurationError(f"The datasets file {path} is not YAML: line {line}: {problem}.") from None
    except (yaml.YAMLError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"The datasets file {path} is not YAML ({type(error).__name__}).") from None
    if not isinstance(document, dict) or not isinstance(document.get("datasets"), dict) or not document["datasets"]:
        raise ConfigurationError(
            f"The datasets file {path} describes no dataset. Write: datasets: {{NAME: {{table: SCHEMA.TABLE}}}}"
        )
    return document
