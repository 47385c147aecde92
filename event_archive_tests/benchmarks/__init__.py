"""What the pipeline costs, beside what others cost that do the same. Started by ``make bench``."""
