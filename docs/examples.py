"""Griffe's extension for our docstrings: what stands under `Example:` is a session of the interpreter."""

from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """`Example:` is read as Google's `Examples:`."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Called for every object that is read."""
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
