def main(argv):
    raise NotImplementedError
