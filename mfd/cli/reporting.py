"""x."""


def write(study):
    return study.folder / "report.html"
