"""A page on which a person drops an image and sees its classes, their probabilities and a heat map."""

import asyncio
import base64
import concurrent.futures
import contextlib
import io
import ipaddress
import pathlib
import socket
import time
import urllib.parse

import numpy as np
from PIL import Image

from tfproject.data.decoding import FORMATS, UnreadableImage, decode_image, pixels_in_memory, resize
from tfproject.errors import UserError
from tfproject.evaluation.prediction import threshold
from tfproject.tools import heat_maps

MAX_BYTES = 16_000_000
MAX_PIXELS = 30_000_000
SLOTS = 4  # requests whose images are in memory at the same time; the others wait unread
WAIT_SECONDS = 30  # for a slot, and for an image to arrive
BURST, PER_SECOND = 200, 20  # requests of one address: so many at once, and so many a second for long
MAX_CONNECTIONS = 512
PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not answered with a class; `status` is HTTP's number, the message one sentence."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def serve(saved_model, host="127.0.0.1", port=8765, *, abstain_below=None, announce=print):
    """Serve the page until the process is interrupted.

    Args:
        saved_model: a `tfproject.models.saved_models.SavedModel`.
        host: the address to listen on; the default is reached from this machine alone.
        port: 0 for any that is free.
        abstain_below: as `build_app` takes it.
        announce: called with the page's address once it is listened on.

    Raises:
        UserError: if a package is missing or the address cannot be listened on.
    """
    with _packages():
        import uvicorn
    if not 0 <= port <= 65535:  # the system takes 70000 for 4464
        raise UserError(f"There is no port {port}; give one from 0 to 65535.")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=MAX_CONNECTIONS)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{host}, port {port}, cannot be used ({reason}); name another address or port.") from error
    with listener:
        bound, number = listener.getsockname()[:2]  # a name such as 127.1 may stand for a loopback address too
        app = build_app(saved_model, bound, abstain_below=abstain_below)
        name = bound if _is_loopback(bound) else host
        announce(f"http://{f'[{name}]' if ':' in name else name}:{number}/")
        config = uvicorn.Config(
            app, log_level="error", access_log=False, server_header=False, limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=5, timeout_graceful_shutdown=3, http=_protocol(), ws="none", proxy_headers=False,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listener])


def build_app(saved_model, host="127.0.0.1", *, abstain_below=None, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS):
    """The page as a FastAPI application.

    GET / is the page, GET /about the model's name and classes and the limits, POST /classify takes the bytes of an
    image file as the request's body. Answers are JSON; what is refused is {"error": a sentence}. No file is written,
    and no part of a request is taken for a path.

    Args:
        saved_model: a `tfproject.models.saved_models.SavedModel`.
        host: the address that it is served on; on a loopback one, requests for other names are refused.
        abstain_below: a probability; "abstains" is true if the most probable class has less. None takes what the
            model's card says, if it does.
        max_bytes: of a request.
        max_pixels: of an image.

    Returns:
        fastapi.FastAPI.

    Raises:
        UserError: if a package is missing.
    """
    with _packages():
        from fastapi import FastAPI, Request
        from fastapi.responses import JSONResponse, Response
        from starlette.exceptions import HTTPException
        from starlette.requests import ClientDisconnect

    worker = concurrent.futures.ThreadPoolExecutor(1)  # one image is decoded and classified at a time

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    explain = explainer(saved_model, threshold(saved_model, abstain_below) or 0.0)
    slots = asyncio.Semaphore(SLOTS)
    within_rate = _rate_limit()
    folder = pathlib.Path(__file__).parent / "page"
    contents = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGE.items()}
    about = {
        "model": saved_model.card.get("title") or saved_model.path.stem, "class_names": list(saved_model.class_names),
        "image_size": list(saved_model.image_size), "max_bytes": max_bytes, "max_pixels": max_pixels,
    }  # fmt: skip

    def refusal(status, message):
        return JSONResponse({"error": message}, status, {"Connection": "close"} if status != 404 else None)

    @app.middleware("http")
    async def guarded(request: Request, answer):
        try:
            _check_origin(request.headers, host)
            if not within_rate(request.client.host if request.client else ""):
                raise Refused(429, "There were too many requests; wait a few seconds and try again.")
            response = await answer(request)
        except Refused as error:
            response = await refused(request, error)
        except Exception:  # one image must not end the page
            response = refusal(500, "The server failed on this request; try another image.")
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused):
        return refusal(error.status, str(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException):
        sentence = {404: "There is no such page; go to /.", 405: "This address takes another method; go to /."}
        return refusal(error.status_code, sentence.get(error.status_code, "The request is not understood; go to /."))

    @app.get("/about")
    async def get_about():
        return about

    async def get_page(request: Request):
        content, kind = contents[request.url.path]
        return Response(content, media_type=kind)

    for path in PAGE:
        app.get(path)(get_page)

    @app.post("/classify")
    async def classify(request: Request):
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not kind.startswith("image/") and kind != "application/octet-stream":
            raise Refused(415, "The request is no image; send a JPEG, PNG, TIFF, BMP, WebP or GIF file.")
        too_large = Refused(413, f"The file is too large; give one of at most {max_bytes / 1e6:g} MB.")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > max_bytes:
            raise too_large
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await slots.acquire()
        except TimeoutError:
            raise Refused(503, "The server is busy; try again in a while.") from None
        try:
            body = bytearray()
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    async for part in request.stream():
                        body += part
                        if len(body) > max_bytes:
                            raise too_large
            except TimeoutError:
                raise Refused(408, "The image took too long to arrive; try again.") from None
            except ClientDisconnect:
                raise Refused(400, "The image did not arrive whole; send it again.") from None
            return await asyncio.get_running_loop().run_in_executor(worker, explain, bytes(body), max_pixels)
        finally:
            slots.release()

    return app


def explainer(saved_model, abstain_below=0.0):
    """A function from the bytes of an image file, and the most pixels that it may have, to the answer of the page.

    The answer: {"classes": [{"class", "probability"}, most probable first], "abstains": bool, "image": what the network
    sees, "heat_map": for the most probable class, or None, "method": the name of `heat_maps.METHOD`}; the pictures are
    PNG as data: addresses.
    """
    from tfproject.evaluation.prediction import predictor
    from tfproject.report.attribution_figures import METHOD_NAMES

    predict = predictor(saved_model.model, saved_model.image_size, 1)
    try:
        heat_of = heat_maps.heat_mapper(saved_model.model)
    except UserError:  # a network without convolutions, or one that cannot be laid open
        heat_of = None
    blank = np.zeros((1, *saved_model.image_size, 3), np.uint8)
    predict(blank)  # traced now, not at the first request

    def explain(content, max_pixels):
        image = _decoded(content, max_pixels, saved_model.image_size)[None]
        probabilities = predict(image)[0]
        order = np.argsort(-probabilities, kind="stable")
        answer = {
            "classes": [{"class": saved_model.class_names[i], "probability": float(probabilities[i])} for i in order],
            "abstains": bool(probabilities.max() < abstain_below),
            "image": _data_address(Image.fromarray(image[0])),
            "heat_map": None,
            "method": METHOD_NAMES[heat_maps.METHOD],
        }
        if heat_of is not None:
            answer["heat_map"] = _data_address(heat_maps.heat_picture(heat_of(image, order[:1])[0]))
        return answer

    return explain


def _decoded(content, max_pixels, size):
    """The image at the network's size; its header is read before any pixel is decoded."""
    unreadable = Refused(415, "The file is no image that can be read; give a JPEG, PNG, TIFF, BMP, WebP or GIF file.")
    too_many = Refused(413, f"The image has too many pixels; give one of at most {max_pixels / 1e6:g} million.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels = pixels_in_memory(image)
    except Image.DecompressionBombError:
        raise too_many from None
    except Exception:  # Pillow's readers raise nearly anything on a damaged file
        raise unreadable from None
    if pixels > max_pixels:
        raise too_many
    try:
        return resize(decode_image(content), size)
    except UnreadableImage as error:
        reason = error.reason.splitlines()[0].rstrip(".")[:200]
        raise Refused(415, f"The image cannot be read ({reason}); give another.") from None


def _data_address(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _check_origin(headers, host):
    """Refuse what another site's page sends, by its own name or by a name of its own for this machine."""
    name = _host_of("//" + headers.get("host", ""))
    if _is_loopback(host) and not _is_loopback(name):
        raise Refused(403, "The page is served under the name localhost only; go there.")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and (
        headers.get("sec-fetch-dest") != "document"  # a link that is followed to here
    ):
        raise Refused(403, "The request comes from another site's page; go to this one's.")
    origin = headers.get("origin")
    if origin is not None and urllib.parse.urlsplit(origin).netloc != headers.get("host"):
        raise Refused(403, "The request comes from another site's page; go to this one's.")


def _host_of(address):
    try:
        return urllib.parse.urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_loopback(name):
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _protocol():
    """uvicorn's HTTP, which hangs up on whoever has sent no whole request so long after it connected or began one."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.patience = self.loop.call_later(WAIT_SECONDS, transport.close)

        def data_received(self, data):
            super().data_received(data)
            asked = self.cycle is not None and not self.cycle.response_complete
            if asked and self.patience:
                self.patience.cancel()
                self.patience = None
            elif not asked and not self.patience:
                self.patience = self.loop.call_later(WAIT_SECONDS, self.transport.close)

    return Impatient


def _rate_limit(burst=BURST, per_second=PER_SECOND, addresses=1000):
    """A function that says whether an address may ask once more: a bucket of `burst` that fills `per_second`."""
    buckets = {}

    def within(address):
        now = time.monotonic()
        left, then = buckets.pop(address, (burst, now))
        left = min(burst, left + (now - then) * per_second)
        allowed = left >= 1
        buckets[address] = (left - allowed, now)
        if len(buckets) > addresses:
            del buckets[next(iter(buckets))]  # whoever has not asked for longest
        return allowed

    return within


@contextlib.contextmanager
def _packages():
    try:
        yield
    except ImportError as error:
        raise UserError(f"The page needs {error.name}, which is missing; pip install 'tfproject[serve]'.") from error
