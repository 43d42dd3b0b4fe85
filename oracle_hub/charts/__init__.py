"""Charts: a subscriber of the stream that keeps bars and opens doors for chart clients. See docs/charts.md."""
