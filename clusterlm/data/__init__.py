"""One node, no torch: from sources to blocks of tokens. Start at `preprocess.py`.

In the order of the data:

    files, hashes, fingerprint    which files, which prepared data (light: a login node asks too)
    sources, convert, chat        records with their place; messages; rendered text, trained spans
    tokenizer, sample             loaded, or trained on a sample
    encode, workers               ids and masks, in worker processes
    collect (dedup, order)        what is kept, in reading order: one flat stream of tokens
    split, pack, plan             blocks as a plan over that stream; nothing is copied
    building, cache               the folder: written aside, published whole; opened by the trainer
"""
