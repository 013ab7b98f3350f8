"""Train the planner's labellers: the corpus, what a perfect labeller makes of it, networks, figures."""
