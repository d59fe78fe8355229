module hpcc.example/second

go 1.23.0
