"""The images of a build: what build.rs compiled and the library embeds."""
import json
import subprocess
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def folder_of_build():
    """Where the build script of the release build left the images; builds where that is missing."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--message-format=json"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for line in run.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "build-script-executed" and "fused-rnn" in message["package_id"]:
            return Path(message["out_dir"]) / "images"
    raise RuntimeError("cargo did not say where the build script of fused-rnn put its results")


def unpack(folder, to):
    """Unpacks all images into the folder `to`: files NAME-ARCH-HASH.cubin and .ptx. The hash is that of everything they are made of."""
    to.mkdir(parents=True, exist_ok=True)
    files = []
    for packed in sorted(folder.glob("*.z")):
        file = to / packed.stem
        if not file.exists():
            file.write_bytes(zlib.decompress(packed.read_bytes(), wbits=-15).rstrip(b"\0" if file.suffix == ".ptx" else b""))
        files.append(file)
    if not files:
        raise RuntimeError(f"{folder} has no images; was libnvrtc there when the crate was built? See docs/cuda.md, Building")
    return files


def unit(file):
    """`persistent_forward.bf16` of `persistent_forward.bf16-sm_90a-HASH.cubin`."""
    return file.name.split("-")[0]


def architecture(file):
    """`sm_90a` of it."""
    return file.name.split("-")[1]
