"""Models that write what they look at: captions of pictures, transcripts of speech, summaries that copy."""
