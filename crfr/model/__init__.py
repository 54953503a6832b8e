"""Stage 3, views -> loss: the network, its branches, the margin softmax and the distance loss."""
