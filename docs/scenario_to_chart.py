"""From a scenario to a chart: does a fifth, slow phone help, and where does a token's time go?"""

import simulator

four, five = simulator.load("four_devices"), simulator.load("five_devices")
prediction = simulator.predict(five)
print(prediction.summary.tokens_per_s.text("tokens/s"))  # median [5 %, 95 %]
print(prediction.bottleneck.sentence)
for sentence in simulator.compare([four, five]).verdicts:
    print(sentence)
simulator.chart(prediction, "where_time_goes").save("where_time_goes.svg")
