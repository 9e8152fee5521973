from pathlib import Path


def template_text(spec):
    return None if spec.chat_template is None else Path(spec.chat_template).read_text()
