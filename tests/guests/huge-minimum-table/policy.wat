;; Wants a table of ten million elements before it says a word.
;;
;; Must come of it: refused at load, naming the limit.
(table $huge 10000000 funcref)
