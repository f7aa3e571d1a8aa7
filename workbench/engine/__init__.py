"""The process that holds the GPU: it loads, trains, evaluates and chats, and outlives the terminal."""
