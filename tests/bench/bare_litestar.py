"""What a single report is held against: a Litestar route that answers 201 and does nothing else."""

from litestar import Litestar, Response, post


@post("/v1/events", status_code=201)
async def submit() -> Response[bytes]:
    """Answer."""
    return Response(b"{}", status_code=201, media_type="application/json")


app = Litestar([submit], openapi_config=None, logging_config=None)
