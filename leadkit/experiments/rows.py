"""The rows of the main table (Table 3) and what they are called among all experiments."""

TEACHERS = ("DE", "CB", "CE")  # of the paper's tables, in their order
ROWS = (
    "BM25",
    "12DE (mines)",
    "teacher",
    "student",
    "student, as long",
    "FD",
    "RD",
    "LEAD",
    "teacher after LEAD",
)
WITHOUT_TEACHER = (
    "BM25",
    "12DE (mines)",
    "student",
    "student, as long",
    "student + smooth label",
)


def experiment(row: str, teacher: str) -> str:
    """The experiment of a row with this teacher: "CB LEAD"."""
    return row if row in WITHOUT_TEACHER else f"{teacher} {row}"
