"""Refusal: what a server will not do, in the words and the shape of OpenAI's API."""

from typing import Any


class Refusal(ValueError):  # noqa: N818 -- a wrong request is one kind, a full queue another
    """An answer other than 200: a client's mistake, or that there is no room or time.

    Args:
        message: One line for a person.
        status: The HTTP status.
        param: The field of the request that is wrong, if it is one.
        code: A word for programs.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The error object.

        Example:
            >>> Refusal("n must be at least 1, got 0", param="n").body["error"]["type"]
            'invalid_request_error'
        """
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


TYPES = {401: "authentication_error", 429: "rate_limit_error"}
"""What OpenAI calls some statuses; others are a wrong request or the server's fault."""
