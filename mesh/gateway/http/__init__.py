"""HTTP below the faces: the server, its limits, answers as they are sent, recorded and given again."""
