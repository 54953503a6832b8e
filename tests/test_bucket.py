"""Checkpoints in a bucket, against an emulator of Google Cloud Storage on this machine.

Skipped without it: pip install 'crfr[gcs]' gcp-storage-emulator.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IN_A_BUCKET = """
import sys
from functools import partial
from gcp_storage_emulator.server import create_server
server = create_server("localhost", int(sys.argv[1]), in_memory=True, default_bucket="bucket")
server.start()
import jax, jax.numpy as jnp
from etils import epath
from crfr.train.checkpoint import Checkpoints
from crfr.train.retention import kept
state = {"a": jnp.arange(3000.0), "b": {"c": jnp.ones((40, 50))}}
folder, keep = "gs://bucket/run/checkpoints", partial(kept, latest=2, every=0, best=0)
try:
    with Checkpoints(folder, keep) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, jax.tree.map(lambda leaf: leaf + step, state))
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(
            checkpoints.choose(), state, jax.tree.map(lambda leaf: leaf.sharding, state)
        )
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a == b + 3).all(), found, state)))
    path = epath.Path(folder) / "3/default/manifest.ocdbt"
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(bytes(data))
    with Checkpoints(folder, keep) as checkpoints:
        print("went on from", checkpoints.choose())
    print("left", sorted(path.name for path in epath.Path(folder).iterdir()))
finally:
    server.stop()
"""


def test_checkpoints_in_a_bucket():
    pytest.importorskip("gcsfs", reason="no gcsfs: pip install 'crfr[gcs]'")
    pytest.importorskip("gcp_storage_emulator", reason="no gcp-storage-emulator: pip install it")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    address = f"http://localhost:{port}"
    variables = {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address}
    result = subprocess.run(
        [sys.executable, "-c", IN_A_BUCKET, str(port)],
        env={**os.environ, **variables, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none", "XLA_FLAGS": ""},
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert "went on from 2\nleft ['2', '3.damaged-1']" in result.stdout
    assert "checkpoints/3: is damaged (manifest.ocdbt: SHA-256 " in result.stderr
