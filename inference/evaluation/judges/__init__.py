"""What judges a reply: slots, a chat model behind an endpoint, recognisers, speech quality."""
