"""From data sets to batches: clips, turns as token ids, units, crops of waveforms."""
