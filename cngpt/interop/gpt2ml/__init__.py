"""The files of gpt2-ml (github.com/imcaspar/gpt2-ml), read without TensorFlow."""
