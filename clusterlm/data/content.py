"""What a chunk holds, as a text that stands for it: the same records, the same text.

Of plain lines the bytes themselves count, so that a file that has grown keeps its chunks; of a
piece of a text its bytes and those around it, which settle where it is cut. Of everything else the
content of the file and the place in it.
"""

from __future__ import annotations

import xxhash

from clusterlm.data.chunks import Chunk
from clusterlm.data.hashes import HashMemo, hash_range
from clusterlm.data.sources import owned_bytes


def content_key(chunk: Chunk, memo: HashMemo) -> str:
    """A text for the content of a chunk."""
    how = f"{chunk.format} {chunk.index} {chunk.start}-{chunk.end}"
    if chunk.format == "lines" and not chunk.is_open:
        # with the offset, since what is stored says where its records are
        data, offset = owned_bytes(chunk)
        return f"lines {offset} {xxhash.xxh3_128_hexdigest(data)}"
    if chunk.is_piece:
        around = 1 << 17
        path, end = chunk.files[0].path, chunk.end + around
        content = hash_range(path, max(0, chunk.start - around), end)
        return f"piece {chunk.start} {chunk.is_last} {content}"
    files = " ".join(f"{file.suffix} {memo.hash_of(file.path)}" for file in chunk.files)
    return f"{how} {files}"
