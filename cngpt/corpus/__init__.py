"""Raw corpora -> clean documents -> shards. Nothing here imports torch; importing the package alone imports no part of it."""
