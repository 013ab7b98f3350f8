"""OpenAI's Responses API: what is asked, what is answered, what is kept."""
