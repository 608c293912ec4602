"""Model cards: the facts that a card is made of, and the text made from them."""
