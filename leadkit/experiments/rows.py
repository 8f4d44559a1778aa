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
    "student, own passages",
    "student + label on own passages",
    "encoder as it came",
)
WIDE = ", 16 x 8"  # queries x passages in a batch of the distillation
RAW = ", raw scores"  # the paper's own regime
RELEASED = ", released"  # everything as the authors released it
STAR = tuple(f"PROD* 12{teacher}" for teacher in TEACHERS)  # the chain of Table 9 with RD
STAR_LEAD = tuple(f"PROD* + LEAD 12{teacher}" for teacher in TEACHERS)  # with LEAD's loss


def experiment(row: str, teacher: str) -> str:
    """The experiment of a row with this teacher: "CB LEAD"."""
    return row if row in WITHOUT_TEACHER else f"{teacher} {row}"
