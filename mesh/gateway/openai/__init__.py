"""OpenAI's other APIs: chat, raw completions, models, embeddings."""
