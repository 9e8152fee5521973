"""One node, no torch: from sources to blocks of tokens. Start at `preprocess.py`.

In the order of the data; what has a folder of its own stands behind the stroke:

    files, hashes, fingerprint   which files, which prepared data (light: a login node asks too)
    reading, sources             sources in order -> records with their place            | formats/
    convert                      records -> texts, messages                              | kinds/
    chat, targets                messages -> rendered text, what of it is trained        | chats/
    tokenizer, tokenizer_stage   loaded, extended or trained; engines, cuts, masks       | tokens/
    encode (items, batch)        a chunk -> tokens and rows of documents
    encoding                     all chunks -> shards, by many workers                   | store/
    chosen, dedup                which stored documents are kept                         | alike/
    split, mix, order            train or validation, how often, in which order
    plan, pack (pack_*)          blocks as segments over the shards; nothing is copied
    prepared, cache, blocks      the folder that is published; opened by the trainer
                                 previews, statistics, checks, what lies in the cache    | looks/
"""
