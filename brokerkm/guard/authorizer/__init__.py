"""The authorisation service of brokers that ask over HTTP: RabbitMQ, EMQX, VerneMQ.

One `Judge` decides for all of them, by the same rules as every other guard; a dialect turns a broker's question into
the judge's words and its verdict into the broker's. Whatever goes wrong is a no, said in the dialect: some brokers take
an error of the service for "ask somebody else".
"""
