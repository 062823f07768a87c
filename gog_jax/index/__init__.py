"""Search over a user's own documents and photographs, on this machine alone.

Texts by BM25; images, whole or cropped, by local descriptors whose geometry is
verified. `build.build` makes an index, `backend.LocalIndex` searches it.
"""
