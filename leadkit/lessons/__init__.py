"""What the notebooks need: figures, widgets, exercise checks, pages, `make reproduce`."""
