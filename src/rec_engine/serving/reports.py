"""Reports as they are sent: pages of the service's own address, which hold what others wrote and need no code."""

from starlette.responses import HTMLResponse

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""No code runs, nothing is loaded, and the page counts as that of another address: it can ask the service nothing."""


def report_response(page: bytes | str) -> HTMLResponse:
    """Return the answer that shows a report."""
    return HTMLResponse(page, headers=HEADERS)
