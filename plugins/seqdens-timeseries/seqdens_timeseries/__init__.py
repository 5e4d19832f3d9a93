"""Vehicle paths, sensor tracks and text for seqdens: data sets `table` and `text`, heads `gmm` and `categorical`."""
