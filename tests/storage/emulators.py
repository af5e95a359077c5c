"""Emulators of Google Cloud Storage and S3 in threads of the tests, on loopback."""

import contextlib
import http.server
from collections.abc import Iterator
from http import HTTPStatus

import pytest

BUCKET = "bucket-of-tests"
GCS = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")
SECRETS = {
    "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
    "GOOGLE_CLOUD_PROJECT": "any",
    "NO_GCE_CHECK": "true",
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextlib.contextmanager
def started() -> Iterator[dict[str, str]]:
    """Starts both emulators with a bucket; yields the variables that lead to them."""
    server = pytest.importorskip("gcp_storage_emulator.server")
    moto = pytest.importorskip("moto.server")
    for library in ("gcsfs", "s3fs"):
        pytest.importorskip(library)
    import boto3

    _obey_conditions(server)
    with pytest.MonkeyPatch.context() as patch:
        # gcsfs opens 50 connections at the same time; if the server's queue of 5 is
        # full, it waits for seconds and tries again
        patch.setattr(http.server.HTTPServer, "request_queue_size", 128)
        gcs = server.create_server(
            "127.0.0.1", 0, in_memory=True, default_bucket=BUCKET
        )
        gcs.start()
        while gcs._api._httpd is None:  # set after the event that `start` waits for
            pass
        s3 = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        s3.start()
        host, port = s3.get_host_and_port()
        url = f"http://127.0.0.1:{gcs._api._httpd.server_address[1]}"
        variables = SECRETS | dict.fromkeys(GCS, url)
        variables["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
        for name, value in variables.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        try:
            yield variables
        finally:
            s3.stop()
            gcs.stop()


def _obey_conditions(server) -> None:
    """Adds what the emulator of GCS lacks: ifGenerationMatch=0, "if it is new"."""
    insert = server.objects.insert

    def conditional(request, response, storage, *args, **kwargs):
        name = request.query.get("name") or [request.data["meta"]["name"]]
        place = request.params["bucket_name"], name[0]
        is_new_only = request.query.get("ifGenerationMatch") == ["0"]
        with contextlib.suppress(server.objects.NotFound):
            if is_new_only and storage.get_file_obj(*place):
                response.status = HTTPStatus.PRECONDITION_FAILED
                return
        insert(request, response, storage, *args, **kwargs)

    for _, handlers in server.HANDLERS:
        if handlers.get(server.POST) is insert:
            handlers[server.POST] = conditional
    server.objects.insert = conditional
