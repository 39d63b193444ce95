"""Tensors onto a device, in a precision: the one package that imports torch, when it is first used.

What is hashed is what is loaded: a lane reads a chunk into a buffer, compares its digest with the manifest's, and
copies or casts from that very buffer. docs/loading.md has the terms; what is public is in api.loading.

    headers, pickles     what a file holds, from its verified header            layout: storages and views of them
    members, gauge       what a PyTorch file may be before torch reads it       kept: what it held, beside its stamp
    dtypes               their names, and which become which
    opening, contents    which files of a component, mended or waited for      blob: one open file
    plan                 what has to be read, and whether it fits               events: what is told
    feed, lanes          which chunk next; read, hash, put in place             landing: from chunks to tensors
    device, queued       where tensors go: the host, devices with queues        cuda: the queues of CUDA
    finding              how "cuda:1" becomes one of them
    host, ahead          memory that is quickly there, a core a lane            memory: how much there is
    job, runner          one load; its passes over what had to be mended        follow: files still being fetched
    stream, modules      one by one; into a torch.nn.Module                     session: the way in
"""
