//! Google's Python client, as it comes from PyPI; `cargo xtask prerequisites` installs it.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::Server;

const SCRIPT: &str = r#"
import base64, hashlib, sys
from google.api_core.exceptions import Conflict, NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

client = storage.Client(project="demo-proj", credentials=AnonymousCredentials(), client_options={"api_endpoint": sys.argv[1]})
bucket = client.create_bucket("kiln-python")
try:
    client.create_bucket("kiln-python")
    raise SystemExit("two buckets of one name")
except Conflict:
    pass

small = bucket.blob("dir/kl\u00e4in.txt")
small.metadata = {"who": "python"}
small.upload_from_string("small", content_type="text/x-small")
small.reload()
assert small.size == 5 and small.content_type == "text/x-small" and small.metadata == {"who": "python"}, small._properties
assert small.crc32c and small.md5_hash == base64.b64encode(hashlib.md5(b"small").digest()).decode(), small.md5_hash
assert small.download_as_bytes(checksum="md5") == b"small"
assert small.download_as_bytes(checksum="crc32c") == b"small"
assert small.download_as_bytes(start=1, end=3) == b"mal"

big = bytes(i // 1000 % 251 for i in range(3_000_000))
chunked = bucket.blob("big.bin", chunk_size=1 << 20)
chunked.upload_from_string(big, checksum="crc32c")
assert chunked.size == len(big)
assert bucket.blob("big.bin").download_as_bytes() == big
assert bucket.blob("big.bin", chunk_size=1 << 20).download_as_bytes() == big

try:
    bucket.blob("big.bin").upload_from_string("x", if_generation_match=0)
    raise SystemExit("a precondition did not hold")
except PreconditionFailed:
    pass

copy = bucket.copy_blob(chunked, bucket, "copies/big.bin")
assert copy.md5_hash == chunked.md5_hash
joined = bucket.blob("joined")
joined.compose([bucket.blob("dir/kl\u00e4in.txt"), bucket.blob("dir/kl\u00e4in.txt")])
assert joined.download_as_bytes() == b"smallsmall"
small.content_type = "text/plain"
small.patch()
assert bucket.get_blob("dir/kl\u00e4in.txt").content_type == "text/plain"

names = [blob.name for blob in client.list_blobs("kiln-python", page_size=2)]
assert names == ["big.bin", "copies/big.bin", "dir/kl\u00e4in.txt", "joined"], names
top = client.list_blobs("kiln-python", delimiter="/")
assert [blob.name for blob in top] == ["big.bin", "joined"] and top.prefixes == {"copies/", "dir/"}
assert bucket.get_blob("missing") is None
assert [found.name for found in client.list_buckets()] == ["kiln-python"]
try:
    bucket.blob("missing").delete()
    raise SystemExit("something that is not there was deleted")
except NotFound:
    pass
bucket.delete(force=True)
assert client.lookup_bucket("kiln-python") is None
print("done")
"#;

/// The Python of the tools that the test command installs.
fn python() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let own = target.parent().unwrap().join("tools/python/bin/python3");
    if own.is_file() { own } else { "python3".into() }
}

#[test]
fn the_python_client_works() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let mut command = Command::new(python());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", directory.path());
    let output = command
        .args(["-c", SCRIPT, &server.url()])
        .output()
        .expect("python3 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !error.contains("No module named 'google"),
        "google-cloud-storage is missing; run `cargo xtask prerequisites`"
    );
    assert!(output.status.success(), "{error}");
    assert_eq!(output.stdout, b"done\n");
}
