"""What a run ended in: judged, written as a row, or sent round again."""
